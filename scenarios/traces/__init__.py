"""Page-access traces of real programs: the file, and the importer that makes it.

A trace keeps which 4 KiB page was touched, how and how often, in order; addresses and times are gone.
That is all a TLB ever sees.
"""
