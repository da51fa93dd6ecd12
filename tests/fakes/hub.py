"""A stand-in for the Hugging Face Hub: repositories are folders of this machine."""

import inspect
import shutil
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub

__all__ = ["FakeHub"]

_REAL = {
    "create_repo": huggingface_hub.HfApi.create_repo,
    "upload_folder": huggingface_hub.HfApi.upload_folder,
    "snapshot_download": huggingface_hub.snapshot_download,
}


class FakeHub:
    """The three calls of huggingface_hub that publishing makes; real ones must take them, too."""

    def __init__(self, root, monkeypatch):
        self.root, self.uploads = root, []
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda library_name: self)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)

    def repository(self, name):
        return self.root / "hub" / name

    def create_repo(self, repo_id, **options):
        _check("create_repo", self, repo_id, **options)
        assert options == {"exist_ok": True}
        self.repository(repo_id).mkdir(parents=True, exist_ok=True)
        return f"https://hub.example/{repo_id}"

    def upload_folder(self, **options):
        _check("upload_folder", self, **options)
        self.uploads.append(options["commit_message"])
        target = self.repository(options["repo_id"])
        for path in _files(target):
            if any(fnmatch(path, pattern) for pattern in options["delete_patterns"]):
                (target / path).unlink()
        shutil.copytree(options["folder_path"], target, dirs_exist_ok=True)

    def snapshot_download(self, repo_id, **options):
        _check("snapshot_download", repo_id, **options)
        source, target = self.repository(repo_id), self.root / "cache" / repo_id
        if not source.is_dir():
            raise huggingface_hub.errors.LocalEntryNotFoundError("it is not there\nat all")
        for path in _files(source):
            if any(fnmatch(path, pattern) for pattern in options["allow_patterns"]):
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / path, target / path)
        return str(target)


def _check(name, *given, **options):
    inspect.signature(_REAL[name]).bind(*given, **options)


def _files(folder):
    return [str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()]
