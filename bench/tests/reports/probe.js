// Runs inside the page under test and tells the frame around it where things stand.
const box = (element) => element.getBoundingClientRect();
const colour = (element) => getComputedStyle(element).stroke.match(/\d+/g).slice(0, 3).map(Number);
const shown = (element) => element.checkVisibility();
const crosses = (a, b) =>
  a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;

const plots = [...document.querySelectorAll("svg")].filter(shown);
const collisions = plots.flatMap((svg) => {
  const texts = [...svg.querySelectorAll("text")].map((element) => [element.textContent, box(element)]);
  const inside = box(svg);
  const out = texts.filter(([, at]) => at.left < inside.left - 1 || at.right > inside.right + 1
    || at.top < inside.top - 1 || at.bottom > inside.bottom + 1).map(([text]) => `${text} stands out`);
  const over = texts.flatMap(([text, at], first) => texts.slice(first + 1)
    .filter(([, other]) => crosses(at, other)).map(([other]) => `${text} over ${other}`));
  return [...out, ...over].map((what) => `${svg.getAttribute("aria-label")}: ${what}`);
});

const overflowing = [...document.querySelectorAll("body *")].filter((element) =>
  shown(element) && !element.closest(".scroll table")
  && (box(element).right > innerWidth + 1 || box(element).left < -1));

parent.postMessage(JSON.stringify({
  window_width: innerWidth,
  page_width: document.documentElement.scrollWidth,
  page_height: Math.ceil(box(document.body).height),
  plots: plots.map((svg) => ({
    title: svg.getAttribute("aria-label"),
    x: box(svg).x + scrollX, y: box(svg).y + scrollY, width: box(svg).width, height: box(svg).height,
    lines: [...svg.querySelectorAll(".line")].map(colour),
    axis: colour(svg.querySelector(".axis")),
  })),
  overflowing: overflowing.map((element) => element.outerHTML.slice(0, 200)),
  collisions,
  fetched: performance.getEntriesByType("resource").map((entry) => entry.name),
  text: document.body.innerText,
}), "*");
