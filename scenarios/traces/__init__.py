"""Page-access traces of real programs: the file, the importers that make it, and the verbs for both.

A trace keeps which 4 KiB page was touched, how and how often, in order; addresses and times are gone.
That is all a TLB ever sees.
"""
