"""Parking: a key whose record can't be settled now is held back, with what follows it, and no other key waits.

`<pipeline>.parked` is the changelog of a state store, one record a parked record. Four rooms:

- `records.py`: a parked record, and how it lies in the topic.
- `parking.py`: on the event loop, which keys are held, and when their heads are tried again.
- `park.py`: on the polling thread, what is kept, written in transactions (`writing.py`) and brought back.
- `decisions.py`: what people decide about parked records (retry, drop, edit), as records that wait until they are carried out.
"""
