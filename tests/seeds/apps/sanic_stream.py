"""The first document's data stream; wait(FIRST_COMPLETED) has become wait_any."""
# mypy: ignore-errors
# ruff: noqa

import json as json_lib
import random
from datetime import UTC, datetime
from functools import partial

import trio

from trioweb import TrioWeb as Sanic
from trioweb import wait_any

app = Sanic("DataStreamApp")


@app.websocket("/ws/data-stream")
async def data_stream(request, ws):
    """Stream real-time data to WebSocket clients."""
    # Send initial connection confirmation
    await ws.send(
        json_lib.dumps(
            {"type": "connected", "message": "Data stream connected", "timestamp": now()}
        )
    )

    try:
        # Wait for either task to complete
        await wait_any(partial(stream_data, ws), partial(handle_client_messages, ws))

    except Exception as e:
        print(f"WebSocket streaming error: {e}")

    finally:
        if not ws.closed:
            await ws.close()


def now():
    return datetime.now(UTC).isoformat()


async def stream_data(ws):
    """Stream data to WebSocket client."""
    while not ws.closed:
        try:
            # Generate sample data
            data = {
                "type": "data",
                "timestamp": now(),
                "value": random.randint(1, 100),
                "sensor_id": "sensor_001",
                "temperature": round(random.uniform(20.0, 30.0), 2),
                "humidity": round(random.uniform(40.0, 80.0), 2),
            }

            await ws.send(json_lib.dumps(data))
            await trio.sleep(1)  # Send data every second

        except Exception as e:
            print(f"Data streaming error: {e}")
            break


async def handle_client_messages(ws):
    """Handle messages from WebSocket client."""
    async for message in ws:
        try:
            data = json_lib.loads(message)

            if data.get("type") == "ping":
                await ws.send(json_lib.dumps({"type": "pong", "timestamp": now()}))
            elif data.get("type") == "subscribe":
                # Handle subscription requests
                sensor_id = data.get("sensor_id")
                await ws.send(
                    json_lib.dumps(
                        {
                            "type": "subscribed",
                            "sensor_id": sensor_id,
                            "message": f"Subscribed to {sensor_id}",
                        }
                    )
                )

        except json_lib.JSONDecodeError:
            await ws.send(json_lib.dumps({"type": "error", "message": "Invalid message format"}))
