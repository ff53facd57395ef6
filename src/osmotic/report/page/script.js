// Pictures over the steps become one picture with a slider; without scripts, and on paper, they stay a strip.
for (const film of document.querySelectorAll(".film")) {
  const slide = film.querySelector("input");
  if (!slide) continue;
  const frames = [...film.querySelectorAll("figure")];
  const show = () => frames.forEach((frame, i) => frame.classList.toggle("now", i === Number(slide.value)));
  slide.addEventListener("input", show);
  slide.hidden = false;
  film.classList.add("sliding");
  show();
}
