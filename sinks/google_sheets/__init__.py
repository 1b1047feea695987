"""Google Sheets: appends a row for each event, or keeps one row per key up to date."""
