/** Images on a node: see images.ts for what they promise. */
export { ImageError } from "./errors.ts";
export { Images, type ImageRequest, type ImagesOptions } from "./images.ts";
