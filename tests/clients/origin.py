"""The origin behind nginx for WebSockets and gRPC: greets with the host that was asked for, and sends back what it gets."""
import sys, threading
from concurrent.futures import ThreadPoolExecutor
import grpc
from websockets.sync.server import serve

def talk(socket):
    socket.send("hello " + socket.request.headers["X-Asked"])
    for message in socket:
        socket.send(message)

class Greeter(grpc.GenericRpcHandler):
    def service(self, call):
        asked = dict(call.invocation_metadata)["x-asked"]
        return grpc.unary_unary_rpc_method_handler(lambda message, _: b"hello " + asked.encode() + b" " + message)

sockets = serve(talk, "127.0.0.1", int(sys.argv[1]))
threading.Thread(target=sockets.serve_forever, daemon=True).start()
calls = grpc.server(ThreadPoolExecutor(4), handlers=[Greeter()])
calls.add_insecure_port(f"127.0.0.1:{sys.argv[2]}")
calls.start()
threading.Event().wait()
