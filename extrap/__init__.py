"""extrap: which position encoding lets a Transformer trained on short sequences work on long ones?"""

import sys

__version__ = "0.1.0"

if sys.platform == "win32":  # no file locks of POSIX, no fork server
    raise ImportError("extrap runs on Linux and macOS; on Windows, within WSL: wsl --install")
