// Sample images of all epochs: a slider and playback, neither of which jumps while the user holds the slider.
import { $, memory, showImage } from "../common/dom.js";

export class Samples {
  // find: returns the URL of the image of an epoch
  constructor(root, epochs, find) {
    this.epochs = epochs;
    this.find = find;
    this.at = epochs.length - 1;
    this.image = $("img", root);
    this.slider = $("input[type=range]", root);
    this.label = $("output", root);
    this.playing = null;
    this.button = $("[data-play]", root);
    this.speed = $("select", root);
    this.speed.value = memory.get("film.speed", "6");
    this.slider.addEventListener("input", () => {
      this.stop();
      this.show(Number(this.slider.value));
    });
    this.button.addEventListener("click", () => (this.playing ? this.stop() : this.play()));
    this.speed.addEventListener("change", () => {
      memory.set("film.speed", this.speed.value);
      if (this.playing) this.play();
    });
    this.listeners = [];
    if (epochs.length) this.show(this.at);
  }

  get epoch() {
    return this.epochs[this.at];
  }

  // A slider at the last epoch advances to the new one; at any other epoch it stays.
  add(epoch) {
    if (this.epochs.includes(epoch)) return this.again();
    const wasLast = this.at === this.epochs.length - 1;
    const epochBefore = this.epoch;
    this.epochs.push(epoch);
    this.epochs.sort((a, b) => a - b);
    this.show(wasLast && !this.playing ? this.epochs.length - 1 : this.epochs.indexOf(epochBefore));
    return undefined;
  }

  show(index) {
    this.at = Math.max(0, Math.min(index, this.epochs.length - 1));
    const last = this.epochs.length - 1;
    this.slider.max = last;
    this.slider.value = this.at;
    this.slider.disabled = last < 1;
    this.button.disabled = last < 1;
    const text = `epoch ${this.epoch} of ${this.epochs[last]}`;
    this.slider.setAttribute("aria-valuetext", text);
    this.label.textContent = text;
    this.image.alt = `Samples of epoch ${this.epoch}`;
    showImage(this.image, this.find(this.epoch), this.at < last ? this.find(this.epochs[this.at + 1]) : null);
    for (const listener of this.listeners) listener(this.epoch);
  }

  // Shows the samples of an epoch, or the last ones before it.
  showEpoch(epoch) {
    if (this.epochs.length) this.show(this.epochs.findLastIndex((other) => other <= epoch));
  }

  // Reloads the current epoch: its image may have changed.
  again() {
    if (this.epochs.length) this.show(this.at);
  }

  play() {
    clearInterval(this.playing);
    if (this.at === this.epochs.length - 1) this.show(0);
    this.playing = setInterval(() => {
      if (!this.image.complete) return; // a slow connection plays slower, but skips no image
      if (this.at >= this.epochs.length - 1) this.stop();
      else this.show(this.at + 1);
    }, 1000 / Number(this.speed.value));
    this.button.textContent = "Pause";
    this.button.setAttribute("aria-pressed", "true");
  }

  stop() {
    clearInterval(this.playing);
    this.playing = null;
    this.button.textContent = "Play";
    this.button.setAttribute("aria-pressed", "false");
  }
}
