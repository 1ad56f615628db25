"""What people read: the page, model cards, tables and pictures, all made from the reports."""
