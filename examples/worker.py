"""Works without end, and says so once a second."""

import os
import time

job = 0
while True:
    job += 1
    print("worker", os.getpid(), "job", job)
    time.sleep(1)
