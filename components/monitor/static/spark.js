// A line without axes for tiles.
import { color } from "./theme.js";

export function spark(canvas, values, name = "accent") {
  const numbers = values.filter(Number.isFinite);
  const dense = devicePixelRatio || 1;
  const width = (canvas.width = Math.max(1, Math.round(canvas.clientWidth * dense)));
  const height = (canvas.height = Math.max(1, Math.round(canvas.clientHeight * dense)));
  if (numbers.length < 2) return;
  const most = Math.max(...numbers, 1e-9);
  const context = canvas.getContext("2d");
  context.strokeStyle = color(name);
  context.lineWidth = 1.5 * dense;
  context.lineJoin = "round";
  context.beginPath();
  numbers.forEach((value, at) => {
    const y = height - dense - (Math.max(0, value) / most) * (height - 2 * dense);
    context.lineTo((at / (numbers.length - 1)) * width, y);
  });
  context.stroke();
  context.lineTo(width, height);
  context.lineTo(0, height);
  context.globalAlpha = 0.13;
  context.fillStyle = color(name);
  context.fill();
}
