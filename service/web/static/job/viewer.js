// One dialog for all images of a page, as large as the window allows, with buttons for the previous and the next one.
import { $, showImage } from "../common/dom.js";

const dialog = $("#viewer");
const image = $("img", dialog);
let current = null;

// images: { count(), at(index) -> { src, title, about, file } }; file: the name of the download
export function view(images, index, onmove = () => {}) {
  current = { images, index, onmove };
  show();
  if (!dialog.open) dialog.showModal();
}

// Called when the images have changed.
export function viewAgain(images, index) {
  if (!dialog.open || current?.images !== images) return;
  current.index = index;
  show();
}

function show() {
  const { images, index } = current;
  const { src, title, about, file } = images.at(index);
  showImage(image, src);
  image.alt = title;
  $("#viewer-title").textContent = title;
  $("#viewer-about").textContent = about ?? "";
  $("#viewer-file").href = src;
  $("#viewer-file").download = file;
  $("#viewer-previous").disabled = index === 0;
  $("#viewer-next").disabled = index === images.count() - 1;
}

function move(step) {
  const index = current.index + step;
  if (index < 0 || index >= current.images.count()) return;
  current.index = index;
  show();
  current.onmove(index);
}

// Integer scale factors keep pixels sharp. An image that is larger than the window is scaled down, unless its
// actual size is selected: then it scrolls.
function fit() {
  if (!image.naturalWidth || !dialog.open) return;
  const stage = image.parentElement;
  const room = Math.min(stage.clientWidth / image.naturalWidth, stage.clientHeight / image.naturalHeight);
  const isActual = $("#viewer-size").getAttribute("aria-pressed") === "true";
  const scale = room >= 1 ? Math.floor(room) : isActual ? 1 : room;
  $("#viewer-size").hidden = room >= 1;
  image.style.width = `${Math.floor(image.naturalWidth * scale)}px`;
  image.classList.toggle("scaled-down", scale < 1);
}

image.addEventListener("load", fit);
addEventListener("resize", fit);
$("#viewer-size").addEventListener("click", ({ currentTarget: button }) => {
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  fit();
});
new ResizeObserver(fit).observe(image.parentElement);
$("#viewer-previous").addEventListener("click", () => move(-1));
$("#viewer-next").addEventListener("click", () => move(1));
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const isScrolled = event.target.matches(".stage") && event.target.scrollWidth > event.target.clientWidth;
  if (!step || isScrolled) return;
  event.preventDefault();
  move(step);
});
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // a click on the backdrop
