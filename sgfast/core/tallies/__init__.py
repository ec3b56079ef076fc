"""What the reports count while packets are judged."""
