"""`python -m drpwatch` is `drpwatch`."""

import sys

from drpwatch.cli import main

sys.exit(main())
