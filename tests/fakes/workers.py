"""Objects for a worker's process that do what a test says."""

import os
import signal
import time

from mmcl.errors import DatasetError


class Patient:
    """Adds numbers, and can be made to fail in every way."""

    def __init__(self, on_stage, total=0, fault=None):
        self.on_stage, self.total = on_stage, total
        if fault == "raises":
            os._exit(3)
        elif fault == "dawdles":
            time.sleep(30)

    def add(self, number):
        if number < 0:
            raise DatasetError("minus")
        self.total += number
        return self.total

    def work(self, *stages):
        for stage in stages:
            self.on_stage(stage)

    def sleep(self, seconds):
        time.sleep(seconds)

    def die(self):
        os.kill(os.getpid(), signal.SIGSEGV)
