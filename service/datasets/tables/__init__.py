"""Tables: from a CSV file to the inputs of a network.

    formats/delimited.py     bytes to rows: encoding, delimiter, quoting, line numbers; bounded memory
    tables/values.py         parses single cells: numbers, dates, missing values
    tables/numerals.py       notations with thousands separators and percent signs
    tables/detection.py      detects the type of a column from all of its values
    tables/plan.py           selects the target and the ignored columns, from the header and the options
    tables/parts.py          the part of each row: from a column, or drawn from each class
    tables/classes.py        the classes, from the values of the target
    tables/importing.py      the import, inside the sandbox: rows to arrays and a description of the columns
    tables/rows.py           rows with values by column name, for predictions
    tables/prediction_files.py  a CSV file of rows for predictions, which are added to it
    tables/preprocessing.py  raw columns to the inputs of a network: fitted on the training part, plain data

Storage: the arrays of ``cache`` under their usual names, with inputs as float64 (rows, columns). Numbers are stored
directly, categories as their index in ``categories``, dates as days since 1970-01-01, missing values as NaN.
``DatasetInfo.columns`` describes the columns in the same order; ``DatasetInfo.report`` has the target and the ignored
columns. A worker fits the preprocessing at the first start of a job, and stores it in every checkpoint
(``state.preprocessing``) and in the job's ``provenance``. Resumed jobs, forks and predictions use the stored one.
"""
