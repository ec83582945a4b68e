"""The paper's claims, one small function each: what it says, what is measured here, and the rule that says whether the
two agree (`catalogue`); running them so that they can be gone on with (`reproducing`), and the page (`page`)."""
