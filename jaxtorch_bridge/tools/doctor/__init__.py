"""What an installation consists of, and what to do about what is odd in it.

One file a subject, each with a function that gives `Check`s; `examine` calls all of them.
"""
