"""Position schemes, one file a family. A scheme is named in `conf/position/` by its import path."""
