"""Reports for people: tables, figures, pages and exports."""
