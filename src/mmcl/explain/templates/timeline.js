// A timeline follows its player: the words and utterances of now are marked, and a click, Enter
// or an arrow key leads to others. Written into the page of a recording, and part of the service's.
function followTimeline(root, player) {
  function all(selector) { return Array.prototype.slice.call(root.querySelectorAll(selector)); }
  var utterances = all(".utterance"), words = all(".word [data-at]"), steps = all(".plot a");
  var heads = all(".head"), ends = steps.map(function (s) { return +s.dataset.end; });
  var total = +root.dataset.total || Math.max.apply(null, ends);
  function holds(element, start, time) { return start <= time && time < +element.dataset.end; }
  function show() {
    var time = player.currentTime + .001, place = Math.min(100, 100 * time / total) + "%";
    heads.forEach(function (head) {
      head.setAttribute("x1", place);
      head.setAttribute("x2", place);
      head.style.visibility = "visible";
    });
    utterances.forEach(function (u) {
      var now = holds(u, +u.dataset.from, time), was = u.classList.contains("now");
      u.classList.toggle("now", now);
      if (now && !was && !player.paused) u.scrollIntoView({ block: "nearest" });
    });
    words.concat(steps).forEach(function (w) { w.classList.toggle("now", holds(w, +w.dataset.at, time)); });
  }
  function run() {
    show();
    if (!player.paused && player.isConnected) requestAnimationFrame(run);
  }
  ["timeupdate", "seeked"].forEach(function (name) { player.addEventListener(name, show); });
  player.addEventListener("play", run);
  root.addEventListener("click", function (event) {
    var from = event.target.closest("[data-at]");
    if (!from) return;
    player.currentTime = +from.dataset.at;
    var playing = player.play();
    if (playing) playing.catch(function () {});
  });
  root.addEventListener("keydown", function (event) {
    var step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    var word = event.target.closest(".word"), plot = event.target.closest(".plot");
    if (!step || !(word || plot)) return;
    var list = word ? word.parentNode.querySelectorAll("button") : plot.querySelectorAll("a");
    var next = list[Array.prototype.indexOf.call(list, event.target.closest("button, a")) + step];
    if (!next) return;
    if (word) { // one stop of the Tab key per utterance
      event.target.tabIndex = -1;
      next.tabIndex = 0;
    }
    next.focus();
    event.preventDefault();
  });
}
// Says so where the browser cannot play a recording, or has no picture of it.
function sayWhatPlays(root, player) {
  var silent = root.querySelector(".silent"), blind = root.querySelector(".blind");
  function fails() { silent.hidden = false; }
  player.addEventListener("error", fails);
  if (player.error) fails(); // it may have failed before there was anyone to listen
  player.addEventListener("loadedmetadata", function () {
    if (blind) blind.hidden = player.videoWidth > 0;
  });
}
