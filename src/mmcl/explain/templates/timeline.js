// A timeline follows its player: the words and utterances of now are marked, and a click, Enter
// or an arrow key leads to others. Written into the page of a recording, and part of the service's.
function followTimeline(root, player) {
  function all(selector) { return Array.prototype.slice.call(root.querySelectorAll(selector)); }
  var utterances = all(".utterance"), steps = all(".plot a");
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
      if (!now && !was) return; // an hour has thousands of words: only those of now are looked at
      u.classList.toggle("now", now);
      u.querySelectorAll(".word [data-at]").forEach(function (w) {
        w.classList.toggle("now", now && holds(w, +w.dataset.at, time));
      });
      if (now && !was && !player.paused) u.scrollIntoView({ block: "nearest" });
    });
    steps.forEach(function (s) { s.classList.toggle("now", holds(s, +s.dataset.at, time)); });
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
// Draws the curve of a timeline: around every utterance the mean of those within a window, whose
// length the reader chooses. Short timelines have no curve.
function smoothTimeline(root) {
  var SECONDS = [10, 30, 60, 120, 300, 600, 1200], FEWEST = 8;
  var plots = Array.prototype.slice.call(root.querySelectorAll(".plot")).filter(function (plot) {
    return plot.querySelector(".curve") && plot.querySelectorAll(".step").length >= FEWEST;
  });
  var place = root.querySelector(".smooth");
  var total = +root.dataset.total || Math.max.apply(null,
    Array.prototype.map.call(root.querySelectorAll(".plot a"), function (a) { return +a.dataset.end; }));
  var windows = SECONDS.filter(function (seconds) { return seconds <= total / 4; });
  if (!place || !plots.length || !windows.length) return;
  function points(plot) {
    return Array.prototype.map.call(plot.querySelectorAll(".step"), function (step) {
      function at(name) { return parseFloat(step.getAttribute(name)); }
      return { x: (at("x1") + at("x2")) / 2, y: at("y1") };
    }).sort(function (a, b) { return a.x - b.x; });
  }
  function curve(all, width) { // in percent of the plot; a silence longer than the window is a gap
    var first = 0, stop = 0, sum = 0;
    return all.map(function (point, index) {
      while (stop < all.length && all[stop].x <= point.x + width / 2) sum += all[stop++].y;
      while (all[first].x < point.x - width / 2) sum -= all[first++].y;
      var joined = index && point.x - all[index - 1].x <= width;
      return (joined ? "L" : "M") + point.x.toFixed(3) + " " + (sum / (stop - first)).toFixed(2);
    }).join("");
  }
  var choice = document.createElement("select"), label = document.createElement("label");
  [0].concat(windows).forEach(function (seconds) {
    choice.add(new Option(!seconds ? "off" : seconds < 60 ? seconds + " s" : seconds / 60 + " min", seconds));
  });
  function draw() {
    plots.forEach(function (plot) {
      var width = 100 * choice.value / total;
      plot.querySelector(".curve path").setAttribute("d", width ? curve(points(plot), width) : "");
    });
  }
  // At first at least a fortieth of the recording, and about ten utterances.
  var least = total * Math.max(1 / 40, 10 / plots[0].querySelectorAll(".step").length);
  choice.value = windows.filter(function (seconds) { return seconds >= least; })[0] || windows[windows.length - 1];
  choice.addEventListener("change", draw);
  label.append("Curve: mean over ", choice);
  place.replaceChildren(label);
  place.hidden = false;
  draw();
}
