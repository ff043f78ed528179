// The drawing paper: a list of steps (strokes, a picture, a cleared sheet) painted on one canvas.
// Places and widths are shares of the paper's side, so a step looks the same at every size.

const INK = "#17181b";
const SHEET = "#ffffff";
const SENT_SIDE = 512; // px, longer side of what is sent
const ERASER_RATIO = 4; // the eraser is wider than the pen of the same setting
const NEAREST = 0.002; // of the side: nearer points are the same point

export class Paper extends EventTarget {
  #canvas;
  #context;
  #steps = [];
  #undone = [];
  #stroke = null;
  tool = "pen";
  width = 3; // 1 to 10, as on the slider: see `lineWidth`

  /** Fires "change" with `detail.drawing` (true while the pen is down) whenever the paper changes. */
  constructor(canvas) {
    super();
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(end, (event) => this.#end(event));
    }
    new ResizeObserver(() => this.#fit()).observe(canvas);
    matchMedia("(resolution: 1dppx)").addEventListener("change", () => this.#fit());
  }

  get canUndo() {
    return this.#steps.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  get isDrawing() {
    return this.#stroke !== null;
  }

  /** True when the paper is empty: no picture and no ink. */
  get isEmpty() {
    return this.#visible().every((step) => step.kind === "stroke" && step.colour === SHEET);
  }

  /** The picture on the paper if nothing was drawn on it, or null. */
  get picture() {
    const visible = this.#visible();
    return visible.length === 1 && visible[0].kind === "picture" ? visible[0] : null;
  }

  /** Width of the current tool's line as a share of the side. */
  get lineWidth() {
    return (this.width / 250) * (this.tool === "eraser" ? ERASER_RATIO : 1);
  }

  /** Lays a picture on a fresh sheet. `bitmap` is null when the browser cannot show it; `source` is what a search should send. */
  lay(bitmap, source) {
    this.#add({ kind: "picture", bitmap, source });
  }

  clear() {
    if (!this.isDrawing && !this.isEmpty) this.#add({ kind: "clear" });
  }

  undo() {
    if (this.isDrawing || !this.canUndo) return;
    this.#undone.push(this.#steps.pop());
    this.#changed();
  }

  redo() {
    if (this.isDrawing || !this.canRedo) return;
    this.#steps.push(this.#undone.pop());
    this.#changed();
  }

  /** The contents of the paper as a PNG; bare paper around a picture is cut off. */
  toBlob() {
    const area = this.#area();
    const scale = SENT_SIDE / Math.max(area.width, area.height);
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(area.width * scale));
    canvas.height = Math.max(1, Math.round(area.height * scale));
    const context = canvas.getContext("2d");
    context.translate(-area.x * scale, -area.y * scale);
    this.#paint(context, scale);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  /** Paints the whole paper on another canvas. */
  copyTo(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.#paint(context, canvas.width);
  }

  #visible() {
    const steps = this.#stroke ? [...this.#steps, this.#stroke] : this.#steps;
    const last = steps.findLastIndex((step) => step.kind !== "stroke");
    if (last < 0) return steps;
    return steps[last].kind === "clear" ? steps.slice(last + 1) : steps.slice(last);
  }

  #add(step) {
    this.#steps.push(step);
    this.#undone = [];
    this.#changed();
  }

  #changed() {
    this.#repaint();
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new CustomEvent("change", { detail: { drawing: this.isDrawing } }));
  }

  #begin(event) {
    if (this.#stroke || event.button !== 0) return;
    this.#canvas.setPointerCapture(event.pointerId);
    const erases = this.tool === "eraser";
    this.#stroke = { kind: "stroke", colour: erases ? SHEET : INK, width: this.lineWidth, points: [], pointer: event.pointerId };
    this.#extend(event);
    this.#tell();
  }

  #move(event) {
    if (event.pointerId !== this.#stroke?.pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const sample of events.length ? events : [event]) this.#extend(sample);
    this.#tell();
  }

  #end(event) {
    if (event.pointerId !== this.#stroke?.pointer) return;
    const stroke = this.#stroke;
    this.#stroke = null;
    this.#add(stroke);
  }

  /** Adds a point and paints what it adds. */
  #extend(event) {
    const box = this.#canvas.getBoundingClientRect();
    const points = this.#stroke.points;
    const point = { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height, press: press(event) };
    const before = points.at(-1);
    if (before && Math.hypot(point.x - before.x, point.y - before.y) < NEAREST) return;
    points.push(point);
    this.#context.setTransform(1, 0, 0, 1, 0, 0);
    paintSegment(this.#context, this.#stroke, points.length - 1, this.#canvas.width);
  }

  /** As many canvas pixels as the screen has below it. */
  #fit() {
    const side = Math.round(this.#canvas.clientWidth * devicePixelRatio);
    if (!side || side === this.#canvas.width) return;
    this.#canvas.width = side;
    this.#canvas.height = side;
    this.#repaint();
  }

  #repaint() {
    this.#context.setTransform(1, 0, 0, 1, 0, 0);
    this.#paint(this.#context, this.#canvas.width);
  }

  #paint(context, side) {
    context.fillStyle = SHEET;
    context.fillRect(0, 0, side, side);
    for (const step of this.#visible()) {
      if (step.kind === "picture") paintPicture(context, step, side);
      else paintStroke(context, step, side);
    }
  }

  /** The part of the paper that is sent: all of it, or the picture and what was drawn beyond it. */
  #area() {
    const [first, ...strokes] = this.#visible();
    if (first?.kind !== "picture" || !first.bitmap) return { x: 0, y: 0, width: 1, height: 1 };
    const place = placeOf(first.bitmap);
    const inked = strokes.filter((stroke) => stroke.colour === INK).flatMap((stroke) => stroke.points);
    const left = Math.max(0, Math.min(place.x, ...inked.map((point) => point.x)));
    const top = Math.max(0, Math.min(place.y, ...inked.map((point) => point.y)));
    const right = Math.min(1, Math.max(place.x + place.width, ...inked.map((point) => point.x)));
    const bottom = Math.min(1, Math.max(place.y + place.height, ...inked.map((point) => point.y)));
    return { x: left, y: top, width: right - left, height: bottom - top };
  }
}

/** A stylus says how hard it presses; mouse and finger draw at the middle. */
function press(event) {
  return event.pointerType === "pen" && event.pressure > 0 ? 0.4 + 1.2 * event.pressure : 1;
}

/** Where a picture goes: as large as fits, centred, as fractions of the side. */
function placeOf(bitmap) {
  const longer = Math.max(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width / longer, bitmap.height / longer];
  return { x: (1 - width) / 2, y: (1 - height) / 2, width, height };
}

function paintPicture(context, { bitmap }, side) {
  if (!bitmap) return;
  const place = placeOf(bitmap);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, place.x * side, place.y * side, place.width * side, place.height * side);
}

function paintStroke(context, stroke, side) {
  for (let at = 0; at < stroke.points.length; at += 1) paintSegment(context, stroke, at, side);
  const [last, before] = [stroke.points.at(-1), stroke.points.at(-2)];
  if (before) paintCurve(context, stroke, middle(before, last), last, last, side);
}

/** From the middle before point `at - 1` to the middle after it, bent towards it: a smooth line through shaky points. */
function paintSegment(context, stroke, at, side) {
  const { points } = stroke;
  if (at === 0) paintCurve(context, stroke, points[0], points[0], points[0], side);
  else if (at === 1) paintCurve(context, stroke, points[0], points[0], middle(points[0], points[1]), side);
  else paintCurve(context, stroke, middle(points[at - 2], points[at - 1]), points[at - 1], middle(points[at - 1], points[at]), side);
}

function paintCurve(context, stroke, from, bend, to, side) {
  context.lineCap = "round";
  context.lineJoin = "round";
  context.strokeStyle = stroke.colour;
  context.lineWidth = Math.max(1, stroke.width * bend.press * side);
  context.beginPath();
  context.moveTo(from.x * side, from.y * side);
  context.quadraticCurveTo(bend.x * side, bend.y * side, to.x * side, to.y * side);
  context.stroke();
}

function middle(one, other) {
  return { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2, press: (one.press + other.press) / 2 };
}
