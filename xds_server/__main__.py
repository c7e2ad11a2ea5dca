"""``python -m xds_server`` is the command `xds`."""

import sys

from xds_server.cli.main import main

sys.exit(main())
