"""Engines that scatter an image into channel data along its delays, and gather it back; one per file."""
