// Draws that a seed decides.
export function random(seed) {
  let state = (seed * 2654435761 + 0x9e3779b9) >>> 0;
  const draw = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    below: (end) => Math.floor(draw() * end),
    chance: (share) => draw() < share,
    among: (list) => list[Math.floor(draw() * list.length)],
  };
}
