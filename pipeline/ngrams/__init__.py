"""The linear n-gram classifier: yardstick beside the recurrent networks."""
