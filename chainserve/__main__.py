"""`python -m chainserve`, as the command `chainserve`."""

import sys

from chainserve.cli import main

sys.exit(main())
