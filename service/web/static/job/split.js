// The samples of two epochs, overlaid: the left of a divider shows one epoch, the right the other.
import { $, showImage } from "../common/dom.js";

export class Split {
  // samples: provides the epochs and the image URLs
  constructor(root, samples) {
    this.root = root;
    this.samples = samples;
    this.stack = $(".stack", root);
    this.divider = $(".split-at", root);
    this.selected = { left: null, right: null }; // epochs, which stay selected when new ones arrive
    this.divider.addEventListener("input", () => this.divide());
    for (const side of ["left", "right"]) {
      this.slider(side).addEventListener("input", ({ target }) => {
        this.selected[side] = this.samples.epochs[Number(target.value)];
        this.show();
      });
    }
    this.stack.addEventListener("pointerdown", (event) => {
      this.stack.setPointerCapture(event.pointerId);
      this.drag(event);
    });
    this.stack.addEventListener(
      "pointermove",
      (event) => this.stack.hasPointerCapture(event.pointerId) && this.drag(event),
    );
  }

  slider(side) {
    return $(`#split-${side}`, this.root);
  }

  open() {
    const { epochs } = this.samples;
    this.selected.left ??= epochs[0];
    this.selected.right ??= epochs.at(-1);
    this.root.hidden = false;
    this.show();
  }

  close() {
    this.root.hidden = true;
  }

  show() {
    if (this.root.hidden) return;
    const { epochs, find } = this.samples;
    for (const side of ["left", "right"]) {
      const epoch = this.selected[side];
      const slider = this.slider(side);
      slider.max = epochs.length - 1;
      slider.value = epochs.indexOf(epoch);
      slider.setAttribute("aria-valuetext", `epoch ${epoch}`);
      $(`output[for=${slider.id}]`, this.root).textContent = `epoch ${epoch}`;
      const image = $(`img[data-side=${side}]`, this.root);
      image.alt = `Samples of epoch ${epoch}, ${side} of the divider`;
      showImage(image, find(epoch));
    }
    this.divide();
  }

  divide() {
    const percentage = Number(this.divider.value);
    this.stack.style.setProperty("--split", `${percentage}%`);
    this.divider.setAttribute(
      "aria-valuetext",
      `${Math.round(percentage)}% epoch ${this.selected.left}, the rest epoch ${this.selected.right}`,
    );
  }

  drag(event) {
    const box = this.stack.getBoundingClientRect();
    this.divider.value = (100 * (event.clientX - box.left)) / box.width;
    this.divide();
  }
}
