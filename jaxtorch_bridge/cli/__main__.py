"""``python -m jaxtorch_bridge.cli`` is ``jaxtorch``."""

from . import main

main()
