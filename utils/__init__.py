"""The rooms that the scripts share, and the most pixels that a picture may have."""

import os
import sys

MAX_PIXELS = 24_000_000  # of a picture or a mask; up to 430 MB while a thread decodes a pair

# OpenCV asks this of a picture's header, before it takes memory, and reads it once: when it is
# loaded. Every room is behind this line; a script that reads pictures leaves OpenCV to the rooms.
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)

# A notebook's `!python` hands on the name of its kernel's own, and Matplotlib refuses one that it
# does not know. Figures are saved here and never shown.
if "ipykernel" not in sys.modules:
    os.environ["MPLBACKEND"] = "agg"
