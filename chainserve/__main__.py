"""`python -m chainserve`."""

import sys

from chainserve.cli import main

sys.exit(main())
