"""``python -m jaxtorch_bridge.tools.cli`` is ``jaxtorch``."""

from . import main

main()
