"use strict";
document.documentElement.classList.add("js");

// Problems: choose one, or step through them.
(() => {
  const problems = [...document.querySelectorAll(".problem")];
  const buttons = [...document.querySelectorAll(".chooser button")];
  let current = 0;
  const show = (index) => {
    current = (index + problems.length) % problems.length;
    problems.forEach((problem, place) => { problem.hidden = place !== current; });
    buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(place === current)));
  };
  if (!problems.length) return;
  buttons.forEach((button, place) => button.addEventListener("click", () => show(place)));
  document.getElementById("previous").addEventListener("click", () => show(current - 1));
  document.getElementById("next").addEventListener("click", () => show(current + 1));
  const between = document.getElementById("between");
  between?.addEventListener("change", () => {
    document.getElementById("answers").classList.toggle("show-between", between.checked);
  });
  show(0);
})();

// Tabs: one stage's table at a time, the last one first.
document.querySelectorAll("[role=tablist]").forEach((list) => {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const select = (tab) => tabs.forEach((each) => {
    each.setAttribute("aria-selected", String(each === tab));
    each.tabIndex = each === tab ? 0 : -1;
    document.getElementById(each.getAttribute("aria-controls")).hidden = each !== tab;
  });
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!move) return;
      const next = tabs[(place + move + tabs.length) % tabs.length];
      select(next);
      next.focus();
    });
  });
  select(tabs.find((tab) => tab.dataset.first !== undefined) || tabs[tabs.length - 1]);
});

// Curves: the pointer shows the nearest step of every line.
document.querySelectorAll("svg.chart").forEach((svg) => {
  const series = JSON.parse(svg.dataset.series);
  const width = svg.viewBox.baseVal.width;
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  svg.parentElement.append(tip);
  const hair = document.createElementNS("http://www.w3.org/2000/svg", "line");
  hair.setAttribute("class", "hair");
  hair.setAttribute("y1", "10");
  hair.setAttribute("y2", String(svg.viewBox.baseVal.height - 26));
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * width;
    const nearest = series.map((line) => line.points.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
    const place = nearest.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a)[0];
    tip.replaceChildren(...nearest.flatMap((point, index) => {
      const row = document.createElement("div");
      row.textContent = `${series[index].name}, ${point[2]}: ${point[3]}`;
      return [row];
    }));
    tip.hidden = false;
    hair.setAttribute("x1", place);
    hair.setAttribute("x2", place);
    svg.append(hair);
    const half = tip.offsetWidth / 2;
    const left = Math.min(Math.max(place / width * box.width, half), box.width - half);
    tip.style.left = `${left}px`;
    tip.style.top = `${svg.offsetTop ?? 0}px`;
    tip.style.top = `${box.top - svg.parentElement.getBoundingClientRect().top + 6}px`;
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; hair.remove(); });
});
