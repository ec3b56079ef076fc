"""Questions about traffic, each a folder. Its answer is plain values, which ``sgfast.report`` writes.

    replaying   what would these rules do to this traffic?
    comparing   what would change with another policy?
    suggesting  which rules does this traffic need?
    checking    what is wrong or risky in this policy?
"""
