"""The forms in which Postfix asks and is answered. Pure: bytes in, values out, and back."""
