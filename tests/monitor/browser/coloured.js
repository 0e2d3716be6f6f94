// Left, right and bottom, as fractions of the picture, of what is coloured in a grey picture.
(() => {
  const canvas = document.querySelector(".camera-view canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const xs = [];
  const ys = [];
  for (let at = 0; at < data.length; at += 4) {
    const pixel = [data[at], data[at + 1], data[at + 2]];
    if (Math.max(...pixel) - Math.min(...pixel) > 60) {
      xs.push(((at / 4) % canvas.width) / canvas.width);
      ys.push(Math.floor(at / 4 / canvas.width) / canvas.height);
    }
  }
  return [xs.reduce((a, b) => Math.min(a, b), 1), xs.reduce((a, b) => Math.max(a, b), 0), ys.reduce((a, b) => Math.max(a, b), 0)];
})()
