"""What clients of ours stand on: between trio-websocket and a stream, a wire that is believed."""
