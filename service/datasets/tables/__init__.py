"""Tables: from a CSV file to the inputs of a network.

    formats/delimited.py     bytes to rows: encoding, delimiter, quoting, line numbers; bounded memory
    tables/values.py         what one cell says: a number, a date, nothing
    tables/detection.py      what a column is, from all of its values
    tables/plan.py           which column is the target, which are left out, as header and person say
    tables/parts.py          which part each row belongs to: as a column says, or drawn from each class
    tables/importing.py      the import, inside the sandbox: rows to arrays and a description of the columns
    tables/rows.py           rows as a person names their values, for predictions
    tables/preprocessing.py  raw columns to the inputs of a network: fitted on the training part, plain data

What is stored: the arrays of ``cache`` under their usual names, with inputs of float64 (rows, columns): numbers as
they are, categories as their place in ``categories``, dates as days since 1970-01-01, NaN where a value is missing.
``DatasetInfo.columns`` describes the columns in that order; ``DatasetInfo.report`` names the target, and what was left
out. A worker fits the preprocessing at the first start of a job and stores it in every checkpoint
(``state.preprocessing``) and in the job's ``provenance``; a resumed or forked job and every prediction take it from
there.
"""
