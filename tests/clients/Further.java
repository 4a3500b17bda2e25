import java.net.URI;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import org.apache.http.client.methods.HttpGet;
import org.apache.http.impl.client.CloseableHttpClient;
import org.apache.http.impl.client.HttpClients;
import org.apache.http.util.EntityUtils;

class Further {
    public static void main(String[] cells) throws Exception {
        for (int i = 1; i < cells.length; i++) {
            String[] cell = cells[i].split("=", 2);
            System.out.println("== " + cell[0]);
            try {
                System.out.println(switch (cells[0]) {
                    case "OkHttp" -> okhttp(cell[1]);
                    case "createSystem" -> apache(HttpClients.createSystem(), cell[1]);
                    default -> apache(HttpClients.createDefault(), cell[1]);
                });
            } catch (Exception error) {
                for (Throwable cause = error; cause != null; cause = cause.getCause()) System.out.println(cause);
            }
        }
        System.exit(0);
    }

    static String okhttp(String url) throws Exception {
        try (var answer = new OkHttpClient().newCall(new Request.Builder().url(url).build()).execute()) {
            return answer.code() + " " + answer.body().string();
        }
    }

    static String apache(CloseableHttpClient client, String url) throws Exception {
        try (client; var answer = client.execute(new HttpGet(URI.create(url)))) {
            return answer.getStatusLine() + " " + EntityUtils.toString(answer.getEntity());
        }
    }
}
