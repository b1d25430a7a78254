"""A world to send mail into: DNS, policy hosts and SMTP servers with one fault each, and Postfix.

All of it lives in one network namespace with nothing but a loopback interface.
"""
