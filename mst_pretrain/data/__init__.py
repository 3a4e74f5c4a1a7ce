"""The data path: image files, crops on the CPU, colours on the device."""
