// Which files of a folder are taken: those of `distildire.io.finding`.

const ENDINGS = new Set([
  "jpg jpeg jpe jfif png apng webp avif gif tif tiff bmp heic heif hif jp2 j2k jpx jpf",
  "ppm pgm pbm pnm tga mpo ico jxl",
  "dng cr2 cr3 crw nef nrw arw sr2 srw raf orf rw2 rwl pef x3f mrw 3fr",
  "mp4 m4v mov mkv webm avi mpg mpeg ts wmv flv 3gp",
].join(" ").split(" "));

/** By type or by name: systems don't know the type of every picture and video. */
export function isOurs(file) {
  return /^(image|video)\//.test(file.type)
    || ENDINGS.has(file.name.split(".").at(-1).toLowerCase());
}

/** Whether a file is one that systems leave in folders: `._x.png` is no picture. */
export function isLitter(file) {
  return /^\._|^(\.DS_Store|Thumbs\.db|ehthumbs\.db|desktop\.ini)$/.test(file.name);
}
