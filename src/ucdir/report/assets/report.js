"use strict";
// Everything is readable without this script: it adds copying, values under the pointer and pictures on the maps.

for (const button of document.querySelectorAll(".copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.previousElementSibling;
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

// Curves: one epoch is looked at in all plots together.

const curves = [...document.querySelectorAll(".curve")].map((figure) => {
  const marks = [...figure.querySelectorAll("[data-epoch]")];
  for (const mark of marks) mark.querySelector("title")?.remove(); // the readout says the same, at once
  return { figure, marks, value: figure.querySelector(".value"), svg: figure.querySelector("svg") };
});

function lookAt(epoch) {
  for (const { figure, marks, value } of curves) {
    let found = null;
    for (const mark of marks) {
      const on = Number(mark.dataset.epoch) === epoch;
      mark.classList.toggle("on", on);
      if (on) found = mark;
    }
    value.textContent = epoch === null ? figure.dataset.last : `epoch ${epoch}: ${found ? found.dataset.value : "off"}`;
  }
}

const epochs = [...new Set(curves.flatMap(({ marks }) => marks.map((mark) => Number(mark.dataset.epoch))))].sort((a, b) => a - b);
let looked = null;
for (const { figure, marks, svg, value } of curves) {
  if (!svg) continue;
  const under = (event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
    let nearest = null;
    for (const mark of marks) {
      const away = Math.abs(Number(mark.getAttribute("cx")) - place);
      if (!nearest || away < nearest.away) nearest = { away, epoch: Number(mark.dataset.epoch) };
    }
    if (nearest) lookAt(looked = nearest.epoch);
  };
  figure.addEventListener("pointermove", under);
  figure.addEventListener("pointerdown", under);
  figure.addEventListener("pointerleave", () => lookAt(looked = null));
  figure.addEventListener("focus", () => value.setAttribute("aria-live", "polite"));
  figure.addEventListener("blur", () => { value.removeAttribute("aria-live"); lookAt(looked = null); });
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !epochs.length) return;
    event.preventDefault();
    const at = looked === null ? (step < 0 ? epochs.length : -1) : epochs.indexOf(looked);
    lookAt(looked = epochs[Math.min(Math.max(at + step, 0), epochs.length - 1)]);
  });
}

// Maps: a mark is an image; what is pointed at in one map is shown in both.

const maps = [...document.querySelectorAll(".map")];
if (maps.length) {
  const { domains, classes, points } = JSON.parse(document.getElementById("map-points").textContent);
  const box = document.querySelector(".maps");
  const cell = Number(box.dataset.cell), columns = Number(box.dataset.columns);
  const sheet = document.getElementById("sheet"), said = document.getElementById("map-said");
  const tip = document.body.appendChild(Object.assign(document.createElement("div"), { className: "tip", hidden: true }));
  const canvas = tip.appendChild(document.createElement("canvas"));
  const name = tip.appendChild(document.createElement("b")), where = tip.appendChild(document.createElement("span"));
  canvas.width = canvas.height = 2 * cell;
  const drawn = maps.map((figure) => {
    const svg = figure.querySelector("svg");
    const marks = [];
    for (const mark of svg.querySelectorAll("[data-i]")) marks[Number(mark.dataset.i)] = mark;
    const places = marks.map((mark) => { const b = mark.getBBox(); return [b.x + b.width / 2, b.y + b.height / 2]; });
    const order = places.map((_, i) => i).sort((a, b) => places[a][0] - places[b][0]);
    return { figure, svg, marks, places, order };
  });
  let shown = null;

  function show(number, map) {
    if (shown !== null) for (const { marks } of drawn) marks[shown].classList.remove("on");
    shown = number;
    tip.hidden = number === null;
    if (number === null) return;
    const [domain, label, path] = points[number];
    for (const { marks } of drawn) {
      marks[number].classList.add("on");
      marks[number].parentNode.append(marks[number]);
    }
    const pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(sheet, (number % columns) * cell, Math.floor(number / columns) * cell, cell, cell, 0, 0, 2 * cell, 2 * cell);
    name.textContent = label < 0 ? domains[domain] : `${domains[domain]}: ${classes[label]}`;
    where.textContent = path;
    said.textContent = `${name.textContent}, ${path}`;
    const at = map.marks[number].getBoundingClientRect();
    const left = at.right + 14 + tip.offsetWidth > innerWidth ? at.left - tip.offsetWidth - 14 : at.right + 14;
    tip.style.left = `${Math.max(6, Math.min(left, innerWidth - tip.offsetWidth - 6))}px`;
    tip.style.top = `${Math.max(6, Math.min(at.top - 40, innerHeight - tip.offsetHeight - 6))}px`;
  }

  for (const map of drawn) {
    const visible = (number) => !map.marks[number].classList.contains("dim");
    const under = (event) => {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.svg.getScreenCTM().inverse());
      let nearest = null;
      map.places.forEach(([x, y], number) => {
        const away = (x - place.x) ** 2 + (y - place.y) ** 2;
        if (visible(number) && (!nearest || away < nearest.away)) nearest = { away, number };
      });
      show(nearest && nearest.away < 400 ? nearest.number : null, map);
    };
    map.figure.addEventListener("pointermove", under);
    map.figure.addEventListener("pointerdown", under);
    map.figure.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") show(null); });
    map.figure.addEventListener("blur", () => show(null));
    map.figure.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return show(null);
      const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      let at = shown === null ? (step < 0 ? map.order.length : -1) : map.order.indexOf(shown);
      do at += step; while (map.order[at] !== undefined && !visible(map.order[at]));
      if (map.order[at] !== undefined) show(map.order[at], map);
    });
  }
  addEventListener("scroll", () => { if (shown !== null && !document.activeElement?.classList.contains("map")) show(null); }, { passive: true });

  const choice = document.getElementById("map-colour"), keys = document.getElementById("class-keys");
  if (choice) {
    choice.parentElement.hidden = false;
    const present = [...new Set(points.map(([, label]) => label))].filter((label) => label >= 0).sort((a, b) => a - b);
    const recolour = () => {
      show(null);
      const byClass = choice.value === "class", only = /^\d+$/.test(choice.value) ? Number(choice.value) : null;
      keys.replaceChildren(...(byClass ? present : []).map((label, i) => {
        const key = Object.assign(document.createElement("span"), { className: "key", textContent: classes[label] });
        const swatch = Object.assign(document.createElement("i"), { className: "swatch" });
        swatch.style.background = `var(--s${i % 10})`;
        key.prepend(swatch);
        return key;
      }));
      document.querySelector(".legend .keys").classList.toggle("neutral", byClass);
      for (const { marks } of drawn) {
        marks.forEach((mark, number) => {
          const [domain, label] = points[number];
          const tone = byClass ? (label < 0 ? "plain" : `s${present.indexOf(label) % 10}`) : `s${domain % 10}`;
          mark.setAttribute("class", `f-${tone} mark${only !== null && label !== only ? " dim" : ""}`);
        });
      }
    };
    choice.addEventListener("change", recolour);
    recolour();
  }
}
