"""Rooms: WebSockets that are told things together."""

from trioweb.rooms.connections import ConnectionManager
from trioweb.rooms.members import BroadcastResult, Member
from trioweb.rooms.room import Room
from trioweb.rooms.rooms import Rooms
from trioweb.rooms.tasks import RoomTask

__all__ = [
    "BroadcastResult",
    "ConnectionManager",
    "Member",
    "Room",
    "RoomTask",
    "Rooms",
]
