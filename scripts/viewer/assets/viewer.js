// The viewer's page: one or two scans with their masks in NiiVue, lesions to jump to, keys.
"use strict";

const { Niivue, NVImage, SHOW_RENDER, DRAG_MODE } = niivue;
const settings = JSON.parse(document.getElementById("settings").textContent);
const ORANGE = { R: [255, 255], G: [159, 159], B: [28, 28], A: [0, 255], I: [0, 255] }; // the report's outline
const VEIL = 0.8; // how transparent in 3-D what is homogeneous is, so that opacities are seen within
const OPACITY_STEP = 10;
const ZOOM_STEP = 1.25;
const LARGEST_ZOOM = 10;

const opacity = document.getElementById("opacity");
const linked = document.getElementById("linked");
const shown = document.getElementById("shown");

/** One scan with its mask. */
class View {
  constructor(section, source) {
    this.section = section;
    this.source = source;
    this.canvas = section.querySelector("canvas");
    this.buttons = [...section.querySelectorAll(".lesions button")];
    this.lesion = -1;
    this.position = null; // mm towards right, anterior, superior
    this.buttons.forEach((button, index) => button.addEventListener("click", () => this.jump(index)));
  }

  /** Read both volumes and show them. */
  async load() {
    this.niivue = new Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.25, 0.75, 1, 1],
      crosshairWidth: 0.6, // of the width of the scan: a voxel may be less than a pixel
      crosshairWidthUnit: "percent",
      fontColor: [0.85, 0.85, 0.85, 1],
      show3Dcrosshair: true,
      isRadiologicalConvention: true,
      isOrientationTextVisible: this.source.oriented,
      multiplanarShowRender: SHOW_RENDER.ALWAYS,
      dragMode: DRAG_MODE.windowing,
      dragAndDropEnabled: false,
      loadingText: "",
      logLevel: "error",
    });
    this.niivue.addColormap("orange", ORANGE);
    await this.niivue.attachToCanvas(this.canvas);
    this.niivue.onLocationChange = (location) => this.moved(location);
    for (const [name, options] of [
      ["scan", { colormap: "gray" }],
      ["mask", { colormap: "orange", cal_min: 0, cal_max: 1, opacity: opacity.value / 100 }],
    ]) {
      const url = await fetched(this.source[name]);
      this.niivue.addVolume(await NVImage.loadFromUrl({ url, name: `${name}.nii`, ...options }));
    }
    await this.niivue.setGradientOpacity(VEIL);
    this.section.dataset.state = "ready";
  }

  /** Show the largest lesion, or the middle of a scan without any, in full size. */
  start() {
    this.niivue.setPan2Dxyzmm([0, 0, 0, 1]);
    if (this.buttons.length) return this.jump(0);
    this.niivue.scene.crosshairPos = [0.5, 0.5, 0.5];
    this.niivue.moveCrosshairInVox(0, 0, 0);
  }

  move(x, y, z) {
    this.niivue.moveCrosshairInVox(x, y, z);
  }

  /** Show a range of values; null: all of them. */
  window(range) {
    const scan = this.niivue.volumes[0];
    [scan.cal_min, scan.cal_max] = range ?? extent(scan);
    this.niivue.updateGLVolume();
  }

  layout(type) {
    const { niivue: viewer } = this;
    viewer.setSliceType(viewer[`sliceType${type[0].toUpperCase()}${type.slice(1)}`]);
  }

  /** Move the crosshair to a lesion. */
  jump(index) {
    this.lesion = index;
    this.buttons.forEach((button, one) => button.setAttribute("aria-current", String(one === index)));
    this.buttons[index].scrollIntoView({ block: "nearest" });
    this.moveTo(this.source.places[index]);
  }

  /** Jump to the next lesion, or the one before. */
  next(step) {
    const count = this.buttons.length;
    if (count) this.jump(this.lesion < 0 && step < 0 ? count - 1 : (this.lesion + step + count) % count);
  }

  moveTo(mm) {
    this.niivue.scene.crosshairPos = this.niivue.mm2frac(mm, 0, true);
    this.niivue.drawScene();
    this.niivue.createOnLocationChange();
  }

  zoom(factor) {
    const [x, y, z, before] = this.niivue.scene.pan2Dxyzmm;
    const after = Math.min(Math.max(before * factor, 1), LARGEST_ZOOM);
    const centre = after === 1 ? null : this.position;
    const pan = [x, y, z].map((one, axis) => (centre ? one + (before - after) * centre[axis] : 0));
    this.niivue.setPan2Dxyzmm([...pan, after]);
  }

  /** Say where the crosshair is; move the other view by the same distance where they are linked. */
  moved(location) {
    const [before, mm] = [this.position, [...location.mm].slice(0, 3)];
    this.position = mm;
    this.section.querySelector(".place").textContent = this.words(location);
    if (!linked?.checked || !before || View.follows) return;
    View.follows = true; // the other one's move is not to move this one
    for (const other of views) {
      if (other !== this && other.position) other.moveTo(other.position.map((one, axis) => one + mm[axis] - before[axis]));
    }
    View.follows = false;
  }

  words({ mm, vox, values }) {
    const [width, height, depth] = this.niivue.volumes[0].dimsRAS.slice(1, 4);
    const value = `value ${Number(values[0].value.toFixed(1))}${values[1].value > 0 ? ", marked" : ""}`;
    if (!this.source.oriented) return `column ${width - vox[0]} of ${width}, row ${height - vox[1]} of ${height}; ${value}`;
    const letters = ["RL", "AP", "SI"].map((pair, axis) => `${pair[mm[axis] < 0 ? 1 : 0]} ${Math.abs(mm[axis]).toFixed(1)}`);
    return `slice ${depth - vox[2]} of ${depth} from the head; ${letters.join(", ")} mm; ${value}`;
  }

  fail(error) {
    this.section.dataset.state = "failed";
    this.section.querySelector(".state").textContent = "Not shown";
    const problem = document.getElementById("problem");
    problem.textContent = error.message;
    problem.hidden = false;
  }
}

/** Return a file's bytes; the error holds the server's line. */
async function fetched(address) {
  const answer = await fetch(address, { cache: "no-store" });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.arrayBuffer();
}

/** Return the smallest and the largest value; NiiVue's own are those of the middle of the volume. */
function extent(volume) {
  let [low, high] = [Infinity, -Infinity];
  for (const stored of volume.img) {
    if (stored < low) low = stored;
    if (stored > high) high = stored;
  }
  return [low, high].map((stored) => volume.intensityRaw2Scaled(stored)).sort((one, other) => one - other);
}

const views = [...document.querySelectorAll(".view")].map((section, index) => new View(section, settings.views[index]));
let active = views[0]; // what the keys move

function ready() {
  return views.filter((view) => view.section.dataset.state === "ready");
}

function press(name, index) {
  document.querySelectorAll(`[data-${name}]`).forEach((button, one) => button.setAttribute("aria-pressed", String(one === index)));
}

function chooseWindow(index) {
  press("window", index);
  ready().forEach((view) => view.window(settings.windows[index].range));
}

function chooseLayout(index) {
  press("layout", index);
  ready().forEach((view) => view.layout(settings.layouts[index]?.type ?? "axial"));
}

function chooseOpacity(percent) {
  opacity.value = percent;
  ready().forEach((view) => view.niivue.setOpacity(1, opacity.value / 100));
}

let lastOpacity = 50;
function toggleOpacities() {
  if (Number(opacity.value)) lastOpacity = Number(opacity.value);
  chooseOpacity(Number(opacity.value) ? 0 : lastOpacity);
}

function togglePrior() {
  views[1].section.hidden = !shown.checked;
  if (!shown.checked) active = views[0];
  document.querySelector(".views").classList.toggle("two", shown.checked);
}

function reset() {
  chooseWindow(0);
  chooseLayout(0);
  ready().forEach((view) => view.start());
}

const KEYS = {
  n: () => active.next(1),
  N: () => active.next(-1),
  o: toggleOpacities,
  "+": () => chooseOpacity(Number(opacity.value) + OPACITY_STEP),
  "-": () => chooseOpacity(Number(opacity.value) - OPACITY_STEP),
  z: () => active.zoom(ZOOM_STEP),
  Z: () => active.zoom(1 / ZOOM_STEP),
  r: reset,
  PageUp: () => active.move(0, 0, 1),
  PageDown: () => active.move(0, 0, -1),
  ArrowLeft: () => active.move(1, 0, 0), // the patient's right is at the left
  ArrowRight: () => active.move(-1, 0, 0),
  ArrowUp: () => active.move(0, 1, 0),
  ArrowDown: () => active.move(0, -1, 0),
  ...Object.fromEntries(settings.windows.map((one, index) => [one.key, () => chooseWindow(index)])),
  ...Object.fromEntries(settings.layouts.map((one, index) => [one.key, () => chooseLayout(index)])),
};
if (shown) {
  KEYS.p = () => shown.click();
  KEYS.y = () => linked.click();
}

/** Do what a key stands for; arrows and the like stay with the slider and the buttons. */
function pressed(event) {
  if (event.target === active.canvas) event.stopPropagation(); // NiiVue has keys of its own
  const named = event.key.length > 1; // arrows, Page up
  if (event.ctrlKey || event.altKey || event.metaKey || (named && event.target !== active.canvas)) return;
  const letter = /^[a-z]$/i.test(event.key) && (event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase());
  const act = KEYS[letter || event.key];
  if (!act || !ready().length) return;
  event.preventDefault();
  act();
}

/** Read one view after the other, and let the page be used from the first on. */
async function begin() {
  for (const [name, choose] of [["window", chooseWindow], ["layout", chooseLayout]]) {
    document.querySelectorAll(`[data-${name}]`).forEach((button, index) => button.addEventListener("click", () => choose(index)));
  }
  opacity.addEventListener("input", () => chooseOpacity(Number(opacity.value)));
  shown?.addEventListener("change", togglePrior);
  document.addEventListener("keydown", pressed, true);
  for (const view of views) {
    view.section.addEventListener("pointerdown", () => (active = view));
    view.section.addEventListener("focusin", () => (active = view));
    try {
      await view.load();
      reset();
    } catch (error) {
      view.fail(error);
    }
  }
}

begin();
