import java.net.*;
import java.net.http.*;

class Client {
    public static void main(String[] cells) throws Exception {
        for (int i = 1; i < cells.length; i++) {
            String[] cell = cells[i].split("=", 2);
            System.out.println("== " + cell[0]);
            try {
                System.out.println(cells[0].equals("HttpClient") ? client(cell[1]) : connection(cell[1]));
            } catch (Exception error) {
                for (Throwable cause = error; cause != null; cause = cause.getCause()) System.out.println(cause);
            }
        }
        System.exit(0);
    }

    static String client(String url) throws Exception {
        var answer = HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(url)).build(), HttpResponse.BodyHandlers.ofString());
        return answer.statusCode() + " " + answer.body();
    }

    static String connection(String url) throws Exception {
        var connection = (HttpURLConnection) URI.create(url).toURL().openConnection();
        int status = connection.getResponseCode();
        var body = status < 400 ? connection.getInputStream() : connection.getErrorStream();
        return status + " " + (body == null ? "" : new String(body.readAllBytes()));
    }
}
