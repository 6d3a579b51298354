// Where the letter keys are, in the millimetres that the keyboard's model of touches is made of.

export class Layout {
  /** @param table keys, centres_mm and key_size_mm as the server sends them; the origin is the first key's centre. */
  constructor(table) {
    this.keys = Array.from(table.keys);
    this.centres = table.centres_mm;
    [this.keyWidth, this.keyHeight] = table.key_size_mm;
    const [across, down] = [0, 1].map((axis) => this.centres.map((centre) => centre[axis]));
    this.left = Math.min(...across) - this.keyWidth / 2;
    this.top = Math.min(...down) - this.keyHeight / 2;
    this.width = Math.max(...across) + this.keyWidth / 2 - this.left;
    this.height = Math.max(...down) + this.keyHeight / 2 - this.top;
  }

  /** Layout millimetres of a point on the screen, `box` being where the letters lie there. */
  toMillimetres(clientX, clientY, box) {
    return [
      this.left + ((clientX - box.left) / box.width) * this.width,
      this.top + ((clientY - box.top) / box.height) * this.height,
    ];
  }

  /** Shares of the letters' width and height at which a point in millimetres lies. */
  toShares([x, y]) {
    return [(x - this.left) / this.width, (y - this.top) / this.height];
  }

  nearestKey([x, y]) {
    const distances = this.centres.map(([right, down]) => (right - x) ** 2 + (down - y) ** 2);
    return distances.indexOf(Math.min(...distances));
  }

  /** Free room left and right of the last row's letters, in millimetres. */
  roomBesideLastRow() {
    const bottom = Math.max(...this.centres.map((centre) => centre[1]));
    const across = this.centres.filter((centre) => centre[1] === bottom).map((centre) => centre[0]);
    const edge = this.keyWidth / 2 + this.left;
    return [Math.min(...across) - edge, this.width - (Math.max(...across) - edge) - this.keyWidth];
  }
}

/** A touch aimed at `centre`: Gaussian around it and the thumb's offset, in millimetres. */
export function drawTouch(centre, thumb) {
  const radius = thumb.sigma_mm * Math.sqrt(-2 * Math.log(1 - Math.random()));
  const angle = 2 * Math.PI * Math.random();
  return [
    centre[0] + thumb.offset_mm[0] + radius * Math.cos(angle),
    centre[1] + thumb.offset_mm[1] + radius * Math.sin(angle),
  ];
}
