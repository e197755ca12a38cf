"use strict";
(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const data = JSON.parse(one("#data").textContent);
  let parsed = null;
  const record = () => (parsed ??= JSON.parse(one("#record").textContent));

  // The twin of `written` in chart.py.
  const threeDigits = (value) => {
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size < 1e-3 || size >= 1e6) return value.toExponential(1);
    return size >= 99.95 ? value.toFixed(0) : value.toPrecision(3);
  };
  const written = (value, unit) => {
    if (value === null || value === undefined) return "–";
    if (unit === "percent") return (100 * value).toFixed(1) + " %";
    if (unit !== "bytes") return threeDigits(value);
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = 0;
    for (; Math.abs(value) >= 1024 && step < 4; step++) value /= 1024;
    return (step ? threeDigits(value) : value.toFixed(0)) + " " + units[step];
  };

  // Curves: one cursor for all of them, at a round; the readout above each curve says what is there.
  const charts = all("[data-chart]").map((figure) => ({ figure, ...data.series[figure.dataset.chart], name: figure.dataset.chart }));
  const last = data.rounds.length - 1;
  let chosen = null;

  // Not every round has to be measured: the last one before this that was.
  const measured = (lines, index) => {
    while (index > 0 && lines.median[index] === null) index--;
    return index;
  };
  const point = (at) => {
    const free = at === null;
    const index = free ? last : at;
    for (const { figure, unit, lines, name } of charts) {
      const cursor = one(".cursor", figure);
      const known = measured(lines, index);
      const left = (100 * data.rounds[index]) / Math.max(data.rounds[last], 1) + "%";
      cursor.setAttribute("x1", left);
      cursor.setAttribute("x2", left);
      cursor.toggleAttribute("hidden", free);
      one(".at", figure).textContent = free ? "at the end" : "round " + data.rounds[known];
      for (const [line, values] of Object.entries(lines)) one(`[data-line="${line}"]`, figure).textContent = written(values[known], unit);
      const values = ofPeer(name);
      one(".one", figure).hidden = !values;
      if (values) {
        one(".who", figure).textContent = nameOf(chosen);
        one('[data-line="peer"]', figure).textContent = written(values[data.rounds[known]], unit);
      }
    }
  };
  for (const { figure } of charts) {
    const plot = one(".plot", figure);
    const follow = (event) => {
      const box = plot.getBoundingClientRect();
      const round = ((event.clientX - box.left) / box.width) * data.rounds[last];
      let nearest = 0;
      data.rounds.forEach((value, index) => { if (Math.abs(value - round) < Math.abs(data.rounds[nearest] - round)) nearest = index; });
      point(nearest);
    };
    plot.setAttribute("tabindex", "0");
    plot.addEventListener("pointermove", follow);
    plot.addEventListener("pointerdown", follow);
    plot.addEventListener("pointerleave", () => point(null));
    plot.addEventListener("blur", () => point(null));
    let at = last;
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      at = Math.min(last, Math.max(0, at + step));
      point(at);
    });
  }

  // A peer: chosen in the graph or in the table, it shows in both, and its line in every curve.
  const nameOf = (peer) => one(`tr[data-peer="${peer}"] bdi`)?.textContent ?? record().peers[peer].name;
  const ofPeer = (name) => {
    if (chosen === null) return null;
    const rows = record()[{ accuracy: "accuracy", loss: "loss", bytes: "bytes_sent" }[name]];
    return rows && rows.length ? rows.map((row) => row[chosen]) : null;
  };
  const choose = (peer) => {
    chosen = peer;
    all(".chosen").forEach((element) => element.classList.remove("chosen"));
    one(`tr[data-peer="${peer}"]`)?.classList.add("chosen");
    const dots = all(".net circle");
    if (dots.length === record().peers.length && one(".net .near")) {
      dots[peer].classList.add("chosen");
      const { edges, link_bytes: carried } = record();
      const own = [...edges.keys()].filter((edge) => edges[edge].includes(peer));
      one(".net .near").setAttribute("d", own.map((edge) => `M${data.places[edges[edge][0]]}L${data.places[edges[edge][1]]}`).join(""));
      const links = `, ${own.length} link${own.length === 1 ? "" : "s"}`;
      const bytes = carried.length ? ` with ${written(own.reduce((sum, edge) => sum + carried[edge], 0), "bytes")}` : "";
      one(".graph .shown").textContent = one("title", dots[peer]).textContent + links + bytes;
    }
    for (const { figure, name, low, high, lines } of charts) {
      const values = ofPeer(name) ?? [];
      let pen = "M";
      const path = data.rounds.map((round, index) => {
        const value = values[round];
        if (lines.median[index] === null) return "";
        if (value === null || value === undefined) { pen = "M"; return ""; }
        const step = `${pen}${(1000 * round) / Math.max(data.rounds[last], 1)} ${1000 * (1 - (value - low) / (high - low))}`;
        pen = "L";
        return step;
      });
      one(".shapes .peer", figure).setAttribute("d", path.join(""));
    }
    point(null);
  };
  const net = one(".net[tabindex]");
  if (net) {
    const nearest = (event) => {
      const box = net.getBoundingClientRect();
      const x = (1000 * (event.clientX - box.left)) / box.width;
      const y = (1000 * (event.clientY - box.top)) / box.height;
      let found = 0;
      let least = Infinity;
      data.places.forEach(([a, b], peer) => {
        const distance = (a - x) ** 2 + (b - y) ** 2;
        if (distance < least) [found, least] = [peer, distance];
      });
      return least < 80 ** 2 ? found : null;
    };
    const follow = (event) => {
      const peer = nearest(event);
      if (peer !== null && peer !== chosen) choose(peer);
    };
    net.addEventListener("pointermove", follow);
    net.addEventListener("pointerdown", follow);
    net.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      choose(((chosen ?? -step) + step + data.places.length) % data.places.length);
    });
  }

  // The graph at another moment: every peer in the colour of its accuracy then, on one scale for all rounds.
  const moment = one(".moment");
  if (moment && data.places.length && record().accuracy.length > 1) {
    moment.hidden = false;
    const dots = all(".net circle");
    const ends = [".ramp .low", ".ramp .high"].map((selector) => one(selector));
    const final = { classes: dots.map((dot) => dot.getAttribute("class")), ends: ends.map((end) => end.textContent) };
    const known = record().accuracy.flat().filter((value) => value !== null);
    const low = known.reduce((a, b) => Math.min(a, b), 1);
    const high = Math.max(known.reduce((a, b) => Math.max(a, b), 0), low + 1e-9);
    one("input", moment).addEventListener("input", (event) => {
      const round = Number(event.target.value);
      const past = round < record().accuracy.length - 1;
      let row = round;
      while (row > 0 && !record().accuracy[row].some((value) => value !== null)) row--;
      const up = record().up[Math.min(round, record().up.length - 1)];
      one("output", moment).textContent = row === round ? round : `${round} (accuracy of ${row})`;
      net.classList.toggle("past", past);
      ends.forEach((end, which) => { end.textContent = past ? written([low, high][which], "percent") : final.ends[which]; });
      dots.forEach((dot, peer) => {
        const value = record().accuracy[row][peer];
        const state = up && !up[peer] ? "gone" : value === null ? "unknown" : "s" + Math.round((15 * (value - low)) / (high - low));
        dot.setAttribute("class", (past ? state : final.classes[peer]) + (peer === chosen ? " chosen" : ""));
      });
      let nearest = 0;
      data.rounds.forEach((value, index) => { if (Math.abs(value - round) < Math.abs(data.rounds[nearest] - round)) nearest = index; });
      point(past ? nearest : null);
    });
  }

  // The table: a click on a column sorts by it, another turns the order; empty cells stay last.
  const body = one(".table tbody");
  all(".table thead button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      all(".table thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
      const key = (row) => row.children[column].dataset.sort;
      body.append(...[...body.children].sort((a, b) => {
        const [left, right] = [key(a), key(b)];
        if (left === "" || right === "") return (left === "") - (right === "");
        return way * (Number.isNaN(Number(left)) ? left.localeCompare(right) : left - right);
      }));
    });
  });
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) choose(Number(row.dataset.peer));
  });

  one("#download").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([one("#record").textContent], { type: "application/json" }));
    link.download = "record.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  if (last >= 0) point(null);
})();
